"""A gRPC client that routes by itself, and does what it is asked over HTTP: client.py PORT.

POST /calls    [{"target", "path", "metadata": [[NAME, VALUE]], "count", "timeout"}]  makes each call so often, one after the
               other; answers [{WHO: HOW OFTEN}], where WHO is the server's name, or the status and its text
POST /traffic  {"rate", "calls": [...]}  makes the calls in turn, so many a second, until it is told to stop
POST /stop     answers [[CALL, SENT, ANSWERED, WHO]], the times in seconds since 1970
GET /csds      [[TYPE URL, NAME, CLIENT STATUS, ERROR]] of all resources that it has asked for
"""

import collections
import http.server
import json
import sys
import threading
import time

import grpc
import grpc_csds
from envoy.service.status.v3 import csds_pb2

SENDERS = 8


class Calls:
    """Calls over one channel for each target."""

    def __init__(self):
        self.channels = {}
        self.lock = threading.Lock()

    def channel(self, target):
        with self.lock:
            if target not in self.channels:
                self.channels[target] = grpc.insecure_channel(target)
            return self.channels[target]

    def call(self, call):
        method = self.channel(call["target"]).unary_unary(call["path"], None, None)
        metadata = [(name, value) for name, value in call["metadata"]]
        try:
            _, answered = method.with_call(b"hello", timeout=call["timeout"], metadata=metadata)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        return dict(answered.initial_metadata()).get("x-served-by", "nobody")


class Traffic:
    """Calls at a steady rate."""

    def __init__(self, calls, wanted):
        self.calls = calls
        self.wanted = wanted["calls"]
        self.pause = SENDERS / wanted["rate"]
        self.stopping = False
        self.outcomes = []
        self.senders = [threading.Thread(target=self.send, args=(sender,)) for sender in range(SENDERS)]
        for sender in self.senders:
            sender.start()

    def send(self, sender):
        due = time.time() + self.pause * sender / SENDERS
        turn = sender
        while not self.stopping:
            time.sleep(max(0, due - time.time()))
            due += self.pause
            call = turn % len(self.wanted)
            turn += 1
            sent = time.time()
            who = self.calls.call(self.wanted[call])
            self.outcomes.append([call, sent, time.time(), who])

    def stop(self):
        self.stopping = True
        for sender in self.senders:
            sender.join()
        return self.outcomes


class Status:
    """Where client status discovery puts its answers."""

    def __init__(self):
        self.servicer = grpc_csds.ClientStatusDiscoveryServiceServicer()

    def resources(self):
        found = self.servicer.FetchClientStatus(csds_pb2.ClientStatusRequest(), None)
        return [
            [resource.type_url, resource.name, resource.client_status, resource.error_state.details]
            for config in found.config
            for resource in config.generic_xds_configs
        ]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    calls = Calls()
    traffic = None

    def do_GET(self):
        self.answer(Status().resources() if self.path == "/csds" else {})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])) or "null")
        if self.path == "/calls":
            counts = [
                collections.Counter(self.calls.call(call) for _ in range(call["count"])) for call in asked
            ]
            self.answer(counts)
        elif self.path == "/traffic":
            Handler.traffic = Traffic(self.calls, asked)
            self.answer({})
        elif self.path == "/stop":
            self.answer(Handler.traffic.stop())
        else:
            self.send_error(404)

    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
