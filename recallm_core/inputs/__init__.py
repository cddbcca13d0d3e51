"""What comes from outside, at the door: arguments, folders, files of model folders."""
