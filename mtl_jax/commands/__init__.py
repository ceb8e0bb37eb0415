"""The modes of launch.py: they turn the settings of its flags into the library's arguments."""
