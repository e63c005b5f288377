"""Model families. Each adapter turns texts into arrays and knows nothing of HTTP, queues or metrics."""
