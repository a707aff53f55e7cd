"""What users need to test their own applications: embedded servers as fixtures, faults as data, a fake clock."""
