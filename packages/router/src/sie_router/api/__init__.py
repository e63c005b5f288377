"""What the router tells about itself: health, models, metrics, cluster status. Read only."""
