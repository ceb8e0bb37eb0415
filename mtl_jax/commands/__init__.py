"""What the modes of launch.py do: from the settings of its flags to the library's arguments."""
