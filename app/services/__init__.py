"""What Overread does, for pages, API and command line alike. Knows neither HTTP nor exit codes."""
