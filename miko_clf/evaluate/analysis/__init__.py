"""Where a system errs: its worst mistakes, the posts they fall among, and doubtful labels."""
