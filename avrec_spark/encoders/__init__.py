"""Encoders: from frames, samples and text to vectors. No Spark; weights load once a process."""
