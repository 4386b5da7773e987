// SPDX-License-Identifier: Apache-2.0
// A gRPC client that uses @grpc/grpc-js, for honest_e2e.py: small calls, a stream of small messages, and a pause in
// which it sends only keepalive pings. Prints one line of JSON with what it saw.
//
// node grpc_client.js ADDRESS:PORT CA CALLS MESSAGES PINGS
'use strict';
const fs = require('fs');
const http2 = require('http2');
const grpc = require('@grpc/grpc-js');

const [address, ca] = process.argv.slice(2, 4);
const [calls, messages, pings] = process.argv.slice(4).map(Number);
const IN_FLIGHT = 50;
const seen = {connections: 0, goaways: 0, pongs: 0, answers: 0, wrong: [], statuses: {}, counted: ''};
let onPong = () => {};

// Counts every HTTP/2 session that the library opens, its GOAWAYs, and the answers to its pings.
const connect = http2.connect;
http2.connect = (...options) => {
  const session = connect(...options);
  seen.connections++;
  const emit = session.emit.bind(session);
  session.emit = (name, ...rest) => {  // the library removes listeners, so a listener of ours would not last
    if (name === 'goaway') seen.goaways++;
    return emit(name, ...rest);
  };
  const ping = session.ping.bind(session);
  session.ping = callback => ping((error, ...rest) => {
    if (!error) {
      seen.pongs++;
      onPong();
    }
    callback(error, ...rest);
  });
  return session;
};

const same = bytes => bytes;
const client = new grpc.Client(address, grpc.credentials.createSsl(fs.readFileSync(ca)), {
  'grpc.ssl_target_name_override': 'www.example.test',
  'grpc.default_authority': 'www.example.test',
  'grpc.keepalive_time_ms': 50,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.enable_http_proxy': 0,
  'grpc.enable_retries': 0,
});

// Resolves with the messages of the answer when the call has its status, whatever the status is.
function ended(call) {
  return new Promise(resolve => {
    const got = [];
    call.on('data', message => got.push(message.toString()));
    call.on('error', () => {});  // the status reports the error
    call.on('status', status => {
      const name = `${grpc.status[status.code]}: ${status.details}`;
      seen.statuses[name] = (seen.statuses[name] || 0) + 1;
      resolve(got);
    });
  });
}

async function smallCalls() {
  let next = 0;
  const caller = async () => {
    while (next < calls) {
      const text = `call ${next++}`;
      const got = await ended(client.makeServerStreamRequest('/honest.Echo/Say', same, same, Buffer.from(text)));
      if (got.length === 1 && got[0] === text) seen.answers++;
      else seen.wrong.push([text, got]);
    }
  };
  await Promise.all(Array.from({length: IN_FLIGHT}, caller));
}

async function stream() {
  const call = client.makeBidiStreamRequest('/honest.Echo/Count', same, same);
  const end = ended(call);
  for (let i = 0; i < messages; i++) await new Promise(sent => call.write(Buffer.from(`m${i}`), sent));
  call.end();
  seen.counted = (await end).join();
}

async function rest() {
  const until = seen.pongs + pings;
  await new Promise(resolve => {
    onPong = () => seen.pongs >= until && resolve();
  });
}

async function main() {
  const guard = setTimeout(() => {
    console.error('not done after 60 s:', JSON.stringify(seen));
    process.exit(1);
  }, 60000);
  await smallCalls();
  await stream();
  await rest();
  await smallCalls();  // on the same connection
  clearTimeout(guard);
  console.log(JSON.stringify(seen));
  client.close();
}

main();
