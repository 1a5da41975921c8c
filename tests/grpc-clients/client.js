// The same as client.py, with the gRPC library for Node.
'use strict';

const http = require('node:http');
const grpc = require('@grpc/grpc-js');
require('@grpc/grpc-js-xds').register();

const SENDERS = 8;
const clients = new Map();

function clientFor(target) {
  if (!clients.has(target)) clients.set(target, new grpc.Client(target, grpc.credentials.createInsecure()));
  return clients.get(target);
}

function call({ target, path, metadata, timeout }) {
  const headers = new grpc.Metadata();
  for (const [name, value] of metadata) headers.add(name, value);
  const bytes = (message) => message;
  return new Promise((done) => {
    let served = 'nobody';
    const options = { deadline: Date.now() + timeout * 1000 };
    const answered = (error) => done(error ? `${grpc.status[error.code]}: ${error.details}` : served);
    clientFor(target)
      .makeUnaryRequest(path, bytes, bytes, Buffer.from('hello'), headers, options, answered)
      .on('metadata', (answer) => (served = answer.get('x-served-by')[0] ?? served));
  });
}

async function calls(wanted) {
  const counts = [];
  for (const each of wanted) {
    const count = {};
    for (let i = 0; i < each.count; i++) {
      const who = await call(each);
      count[who] = (count[who] ?? 0) + 1;
    }
    counts.push(count);
  }
  return counts;
}

const now = () => Date.now() / 1000;
const sleep = (seconds) => new Promise((done) => setTimeout(done, Math.max(0, seconds * 1000)));
let traffic;

function begin({ rate, calls }) {
  const pause = SENDERS / rate;
  const state = { stopping: false, outcomes: [] };
  const send = async (sender) => {
    let due = now() + (pause * sender) / SENDERS;
    for (let turn = sender; !state.stopping; turn++) {
      await sleep(due - now());
      due += pause;
      const sent = now();
      const who = await call(calls[turn % calls.length]);
      state.outcomes.push([turn % calls.length, sent, now(), who]);
    }
  };
  state.senders = Array.from({ length: SENDERS }, (_, sender) => send(sender));
  traffic = state;
  return {};
}

async function stop() {
  traffic.stopping = true;
  await Promise.all(traffic.senders);
  return traffic.outcomes;
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text ? JSON.parse(text) : null;
}

const work = {
  'GET /': () => ({}),
  'POST /calls': calls,
  'POST /traffic': begin,
  'POST /stop': stop,
};

http
  .createServer(async (request, response) => {
    const asked = await body(request);
    const wanted = work[`${request.method} ${request.url}`];
    const answer = JSON.stringify(wanted ? await wanted(asked) : null);
    response.writeHead(wanted ? 200 : 404, { 'content-length': Buffer.byteLength(answer) }).end(answer);
  })
  .listen(Number(process.argv[2]), '127.0.0.1');
