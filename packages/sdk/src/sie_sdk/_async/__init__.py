"""The asyncio client, which is also the source of the blocking one."""
