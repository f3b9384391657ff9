// Reading back for the clients in Node that consume only in groups: what is noted, and when it is enough; see verify.py.

import { openSync, writeSync, closeSync } from 'node:fs'
import { base, out, partitions, plan } from './record.mjs'

export const total = plan.reduce((sum, run) => sum + run.count, 0)
export const when = base + Math.floor(total * 5 / 6)
const patience = 60_000

const hex = bytes => bytes == null ? '~' : Buffer.from(bytes).toString('hex')

// Collects one read into a file: note() every record; done resolves with the ends of partitions half a second after the
// last of count, because whatever comes then is one too many and shows.
export class Tail {
  constructor (client, name, count) {
    Object.assign(this, { client, name, count, seen: 0, ends: {} })
    this.file = openSync(`${out}/${name}.tsv`, 'w')
    this.done = new Promise(resolve => { this.finish = resolve })
    this.limit = setTimeout(() => this.close(), patience)
  }

  // headers: pairs of name and bytes
  note (partition, offset, timestamp, key, value, headers) {
    const names = headers.map(([name, v]) => `${name}=${hex(v)}`).join(',')
    writeSync(this.file, `${partition}\t${offset}\t${timestamp}\t${hex(key)}\t${hex(value)}\t${names}\n`)
    this.ends[partition] = Number(offset) + 1
    if (++this.seen === this.count) setTimeout(() => this.close(), 500)
  }

  close () {
    clearTimeout(this.limit)
    const right = this.seen === this.count
    console.log(`${right ? 'ok  ' : 'FAIL'} ${this.client}: read ${this.seen} of ${this.count} records from ${this.name}, in a group`)
    this.finish(this.ends)
  }

  end () {
    closeSync(this.file)
  }
}

// Notes where the reads begin and what the ends are, all of them by partition, and returns what is to be read.
export function starts (ends, later, known) {
  const file = openSync(`${out}/starts.tsv`, 'w')
  writeSync(file, `time\t0\t${when}\n`)
  const middle = {}
  for (let p = 0; p < partitions; p++) middle[p] = Math.floor((ends[p] ?? 0) * 3 / 4)
  for (const [kind, offsets] of Object.entries({ end: known, offset: middle, timestamp: later })) {
    for (const [p, offset] of Object.entries(offsets)) writeSync(file, `${kind}\t${p}\t${offset}\n`)
  }
  closeSync(file)
  const tail = offsets => Object.entries(offsets).reduce((sum, [p, offset]) => sum + ends[p] - offset, 0)
  return [['offset', middle, tail(middle)], ['timestamp', later, tail(later)]]
}
