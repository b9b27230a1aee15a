"""Pages for people: one self-contained HTML file each, in light and dark and on paper; needs the extra `report`."""
