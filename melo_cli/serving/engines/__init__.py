"""What answers requests: the model of this process, or a server behind this one."""
