"""What a zygote imports before its first job: from where, how far ahead, and what the import does to the process."""
