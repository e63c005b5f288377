"""Commands that look at a cluster and change nothing but pools: models, pools, status, top."""
