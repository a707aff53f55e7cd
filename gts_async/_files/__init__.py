"""Files: datasets up, models down, archives unpacked; all disk work happens in worker threads."""
