"""Every kind of model that people bring, served and compared with its own library."""
