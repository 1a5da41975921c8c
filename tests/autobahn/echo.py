"""A WebSocket server that sends back every message: echo.py PORT."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    # What the cases do to it isn't news.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    port = int(sys.argv[1])
    async with serve(echo, "127.0.0.1", port, max_size=None, ping_interval=None) as server:
        await server.serve_forever()


asyncio.run(main())
