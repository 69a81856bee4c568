"""Jobs in operation: what takes orders from a Prefect server, at each party and at the coordinator.

The server is shared and trusted with neither data nor code (DESIGN sections 3 and 4). `server` holds all that we read
of its answers; `worker` polls a pool and keeps the states of its runs; `party` is what a party does with an order, and
`coordinator` starts the coordinating flows, each in a process of its own (`coordinating`); `members` is the other side
of `party`: how a coordinating flow has its members' workers do their part, and hears of it.
"""

__all__: list[str] = []
