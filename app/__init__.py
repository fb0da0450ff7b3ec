"""The web app: `ui` lays the page out, `handlers` turn events into component values, `copy` holds every text."""
