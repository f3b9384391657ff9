// The rule of scripts/clients/record.py for the clients in Node, and the arguments they all take.

import { readFileSync } from 'node:fs'

export const [bootstrap, topic, baseText, out] = process.argv.slice(2)
export const base = Number(baseText)
export const partitions = 6
const large = 'abcdefghijklmnopqrstuvwxyz'.repeat(1154)

export const plan = readFileSync(`${out}/plan.tsv`, 'utf8').trim().split('\n').map(line => {
  const [name, codec, acks, idempotent, count, first] = line.split('\t')
  return { name, codec, acks: acks === 'all' ? -1 : Number(acks), idempotent: idempotent === '1', count: Number(count), first: Number(first) }
})

// The simple headers only: both clients here take them as a map of names.
export function record (client, run, i) {
  const nothing = i % 1000 === 999
  const headers = i % 3 === 0 || nothing ? { i: Buffer.from(`${i}`), run: Buffer.from(run) } : {}
  if (nothing) return { key: null, value: null, headers }
  if (i % 41 === 11) return { key: Buffer.from(`gone-${run}-${i}`), value: null, headers }
  const key = i % 50 === 7 ? null : Buffer.from(`key-${i % 97}`)
  const length = i % 2000 === 1999 ? 30000 : i * 7 % 180
  return { key, value: Buffer.from(`${client}/${run}/${i}/${large.slice(0, length)}`), headers }
}

export function * chunks (run, size) {
  for (let from = 0; from < run.count; from += size) yield [from, Math.min(from + size, run.count)]
}

export function produced (client, run) {
  const acks = run.acks === -1 ? 'all' : run.acks
  console.log(`ok   ${client}: produced ${run.count} with ${run.codec}, acks=${acks}${run.idempotent ? ', idempotent' : ''}`)
}
