// SPDX-License-Identifier: Apache-2.0
// The service grpc.health.v1.Health by @grpc/grpc-js, for probes_e2e.py: in clear at one port, by TLS at another.
// "app.Orders" serves, "app.Paused" does not, and other services are unknown. The server as a whole serves.
//
// node grpc_health.js ADDRESS PORT TLS_PORT CERTIFICATE KEY
'use strict';
const fs = require('fs');
const grpc = require('@grpc/grpc-js');

const same = bytes => bytes;
const SERVING = Buffer.from([0x08, 1]), NOT_SERVING = Buffer.from([0x08, 2]);
const services = {'': SERVING, 'app.Orders': SERVING, 'app.Paused': NOT_SERVING};
const health = {
  Check: {
    path: '/grpc.health.v1.Health/Check', requestStream: false, responseStream: false,
    requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same,
  },
};

const [address, port, tlsPort, certificate, key] = process.argv.slice(2);
const server = new grpc.Server();
server.addService(health, {
  Check: (call, answer) => {
    const name = call.request.subarray(2).toString();  // after tag and length of the one field
    if (name in services) return answer(null, services[name]);
    answer({code: grpc.status.NOT_FOUND, details: 'unknown service'});
  },
});
const identity = [{cert_chain: fs.readFileSync(certificate), private_key: fs.readFileSync(key)}];
const bound = error => {
  if (error) throw error;
};
server.bindAsync(`${address}:${port}`, grpc.ServerCredentials.createInsecure(), bound);
server.bindAsync(`${address}:${tlsPort}`, grpc.ServerCredentials.createSsl(null, identity), bound);
