"""Report: from a run's record to HTML, Markdown, JSON, CSV and pictures, and from many runs to one
leaderboard.
"""
