// @platformatic/kafka: reads back what platformatic.mjs wrote, in groups, which is the only way that it consumes.
//
//   node platformatic_read.mjs BOOTSTRAP TOPIC BASE OUT

import { Consumer, ListOffsetTimestamps } from '@platformatic/kafka'
import { bootstrap, partitions, topic } from './record.mjs'
import { Tail, starts, total, when } from './tails.mjs'

const consumer = groupId => new Consumer({ clientId: 'ringbolt-platformatic', bootstrapBrokers: [bootstrap], groupId, maxWaitTime: 500, autocommit: 500 })

// offsets: where the group begins, by partition; none: at the beginning. They are committed first, and then found.
async function read (name, offsets, count) {
  const groupId = `${topic}-${name}`
  const reader = consumer(groupId)
  if (offsets) {
    await reader.joinGroup({})
    await reader.commit({ offsets: Object.entries(offsets).map(([p, offset]) => ({ topic, partition: Number(p), offset: BigInt(offset), leaderEpoch: -1 })) })
  }
  const tail = new Tail('platformatic', name, count)
  const stream = await reader.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest' })
  stream.on('data', m => {
    tail.note(m.partition, m.offset, m.timestamp, m.key, m.value, m.headerEntries.map(([header, v]) => [`${header}`, v]))
  })
  const ends = await tail.done
  await reader.close(true)
  tail.end()
  return ends
}

const ends = await read('earliest', null, total)
if (Object.keys(ends).length !== partitions) throw new Error(`records of ${Object.keys(ends)} only`)
const asking = consumer(`${topic}-asking`)
const at = async timestamp => {
  const found = await asking.listOffsets({ topics: [topic], timestamp: BigInt(timestamp) })
  return Object.fromEntries(found.get(topic).map((offset, partition) => [partition, Number(offset)]))
}
const known = await at(ListOffsetTimestamps.LATEST)
const later = await at(when)
await asking.close(true)
for (const [name, offsets, count] of starts(ends, later, known)) await read(name, offsets, count)
