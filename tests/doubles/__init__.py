"""Stand-ins for what a test machine may lack. Each refuses a call that the real library would refuse."""
