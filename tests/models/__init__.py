"""Every kind of model that people bring, served and held against its own library."""
