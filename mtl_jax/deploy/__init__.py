"""From a trained network to its user: predictions for photos, folders that work on their own."""
