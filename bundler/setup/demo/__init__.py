"""The demo: a sample project, a vendor's API on loopback, and the main job on both."""
