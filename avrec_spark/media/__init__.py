"""Untrusted media files: identity, probe, key frames, audio, shots, and a watchdog around it all. No Spark."""
