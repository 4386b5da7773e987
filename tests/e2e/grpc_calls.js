// SPDX-License-Identifier: Apache-2.0
// A gRPC service and its client, both by @grpc/grpc-js, for http2_backend_e2e.py. The client prints one line of JSON.
//
// node grpc_calls.js serve ADDRESS:PORT
// node grpc_calls.js call ADDRESS:PORT CA
'use strict';
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const same = bytes => bytes;
const method = (name, requestStream, responseStream) => ({
  path: `/calls.Echo/${name}`, requestStream, responseStream,
  requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
});
const service = {
  Say: method('Say', false, false), Up: method('Up', true, false),
  Down: method('Down', false, true), Both: method('Both', true, true),
  Fail: method('Fail', false, false), Wait: method('Wait', false, false),
};
const trailers = text => {
  const made = new grpc.Metadata();
  made.set('x-told', text);
  return made;
};

function serve(address) {
  const server = new grpc.Server();
  server.addService(service, {
    Say: (call, answer) => answer(null, call.request, trailers('of the call')),
    Up: (call, answer) => {
      let count = 0;
      call.on('data', () => count++);
      call.on('end', () => answer(null, Buffer.from(String(count))));
    },
    Down: call => {
      for (let i = 0; i < Number(call.request); i++) call.write(Buffer.from(`m${i}`));
      call.end();
    },
    Both: call => {
      call.on('data', message => call.write(message));
      call.on('end', () => call.end());
    },
    Fail: (call, answer) => answer({code: grpc.status.NOT_FOUND, details: 'no such thing', metadata: trailers('of the error')}),
    Wait: () => {},
  });
  server.bindAsync(address, grpc.ServerCredentials.createInsecure(), error => {
    if (error) throw error;
  });
}

async function call(address, ca) {
  const client = new grpc.Client(address, grpc.credentials.createSsl(fs.readFileSync(ca)), {
    'grpc.ssl_target_name_override': 'www.example.test',
    'grpc.default_authority': 'www.example.test',
    'grpc.enable_http_proxy': 0,
    'grpc.enable_retries': 0,
  });
  const ended = call => new Promise(resolve => {
    const got = [];
    call.on('data', message => got.push(message.toString()));
    call.on('error', () => {});  // the status reports the error
    call.on('status', status => resolve({
      got, code: String(status.code), details: status.details, told: (status.metadata.get('x-told')[0] || '').toString(),
    }));
  });
  const ask = (path, text, options = {}) =>
    ended(client.makeServerStreamRequest(path, same, same, Buffer.from(text), new grpc.Metadata(), options));
  const seen = {};
  let one = await ask('/calls.Echo/Say', 'hello');
  seen.unary = [`${one.code} ${one.details}`.replace('OK', ''), one.got.join(), one.told];
  const many = await Promise.all(Array.from({length: 1000}, (_, i) => ask('/calls.Echo/Say', `n${i}`)));
  seen.thousand = many.filter((answer, i) => answer.code === '0' && answer.got.join() === `n${i}`).length;
  const up = client.makeBidiStreamRequest('/calls.Echo/Up', same, same);
  const upEnd = ended(up);
  for (let i = 0; i < 500; i++) await new Promise(sent => up.write(Buffer.from(`m${i}`), sent));
  up.end();
  one = await upEnd;
  seen.up = [`${one.code} ${one.details}`.replace('OK', ''), one.got.join()];
  one = await ask('/calls.Echo/Down', '500');
  seen.down = [`${one.code} ${one.details}`.replace('OK', ''), one.got.filter((text, i) => text === `m${i}`).length];
  const both = client.makeBidiStreamRequest('/calls.Echo/Both', same, same);
  const bothEnd = ended(both);
  for (let i = 0; i < 200; i++) {  // each waits for the answer to the one before
    const back = new Promise(resolve => both.once('data', resolve));
    both.write(Buffer.from(`m${i}`));
    await back;
  }
  both.end();
  one = await bothEnd;
  seen.both = [`${one.code} ${one.details}`.replace('OK', ''), one.got.filter((text, i) => text === `m${i}`).length];
  one = await ask('/calls.Echo/Fail', '');
  seen.error = [`${one.code} ${one.details}`, one.told];
  one = await ask('/calls.Echo/Wait', '', {deadline: Date.now() + 300});
  seen.deadline = one.code;
  one = await ask('/calls.Gone/Say', '');
  seen.gone = [one.code, one.details];
  one = await ask('/calls.Echo/None', '');
  seen.unknown = one.code;
  console.log(JSON.stringify(seen));
  client.close();
}

const [what, address, ca] = process.argv.slice(2);
if (what === 'serve') serve(address);
else call(address, ca);
