// What the Node members of scripts/clients/group have in common: arguments, the history, and when to stop; see group_member.py.

import { openSync, writeSync } from 'node:fs'

const given = process.argv.slice(2).map(word => word === '-' ? undefined : word)
export const [bootstrap, topic, group, name, history, protocol, assignor, instance] = given
export const session = 6000
export const heartbeat = 500
export const work = 10

const file = openSync(history, 'a')
// What Node has of a clock of the world is in milliseconds; the rest comes from the monotonic one.
const since = BigInt(Date.now()) * 1_000_000n - process.hrtime.bigint()

function write (op, fields) {
  const time = process.hrtime.bigint() + since
  writeSync(file, `${JSON.stringify({ op, client: name, ...fields }).slice(0, -1)},"time_ns":${time}}\n`)
}

export function polled (partition, offset, key, value, call) {
  write('poll', { topic, partition, offset: Number(offset), key: `${key}`, value: `${value}`, call })
}

// kind: assigned, revoked or lost
export function moved (kind, partitions, generation) {
  for (const partition of [...partitions].sort()) write('assign', { topic, partition, kind, generation })
}

export function committed (partition, offset) {
  write('commit', { topic, group, partition, offset: Number(offset) })
}

export function closing () {
  write('assign', { kind: 'closing' })
}

export function complain (what, error) {
  console.log(`     ${name}: ${what}: ${error?.stack ?? error}`)
}

export const stopping = new Promise(resolve => process.stdin.on('end', resolve).resume())

export const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
