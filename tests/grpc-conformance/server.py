"""The server that connectconformance asks for, behind a proxy: server.py REFERENCESERVER PORT PROXY.

connectconformance writes one message to standard input, which says what the server must be able to do; the server answers
with one that says where it listens. This starts the reference server on PORT, which gets the first message as it is, and
answers with PROXY, the port of the proxy before it. Messages are in Protobuf, after four bytes for their length.
"""

import signal
import struct
import subprocess
import sys

HOST, PORT = 1, 2  # fields of ServerCompatResponse
VARINT, BYTES = 0, 2  # kinds of them


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def response(port):
    host = b"127.0.0.1"
    fields = varint(HOST << 3 | BYTES) + varint(len(host)) + host + varint(PORT << 3 | VARINT) + varint(port)
    return struct.pack(">I", len(fields)) + fields


def main():
    program, port, proxy = sys.argv[1:]
    server = subprocess.Popen([program, "-port", port], stdout=subprocess.PIPE)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    (length,) = struct.unpack(">I", server.stdout.read(4))
    server.stdout.read(length)
    with sys.stdout.buffer as answer:
        answer.write(response(int(proxy)))
    server.wait()


main()
