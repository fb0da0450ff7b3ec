"""Pictures of a trace: `compute_*` gives plain arrays, `plot_*` a plotly figure, `html_page` a whole page."""
