"""Overread's core: radiographs, triggers, training, saliency. Research use, not for diagnosis.

Importable without the dashboard: nothing here knows of the web, the database or settings.
"""
