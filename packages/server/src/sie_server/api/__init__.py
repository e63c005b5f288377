"""The worker's HTTP and WebSocket face. Knows the engine's facade, never an adapter."""
