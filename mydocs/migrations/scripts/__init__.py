"""From files to scripts: find, check by parsing, load, and the templates of new ones."""
