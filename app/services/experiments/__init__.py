"""Experiments as a server knows them: asked for, queued, watched, judged, registered, removed."""
