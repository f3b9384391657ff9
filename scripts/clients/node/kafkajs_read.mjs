// kafkajs: reads back what kafkajs.mjs wrote, in groups, which is the only way that it consumes.
//
//   node kafkajs_read.mjs BOOTSTRAP TOPIC BASE OUT

import kafkajs from 'kafkajs'
import './kafkajs_codecs.mjs'
import { bootstrap, partitions, topic } from './record.mjs'
import { Tail, starts, total, when } from './tails.mjs'

const { Kafka, logLevel } = kafkajs
const kafka = new Kafka({ clientId: 'ringbolt-kafkajs', brokers: [bootstrap], logLevel: logLevel.ERROR })
const admin = kafka.admin()
await admin.connect()

// offsets: where the group begins, by partition; none: at the beginning.
async function read (name, offsets, count) {
  const groupId = `${topic}-${name}`
  if (offsets) {
    const set = Object.entries(offsets).map(([partition, offset]) => ({ partition: Number(partition), offset: `${offset}` }))
    await admin.setOffsets({ groupId, topic, partitions: set })
  }
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 500 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const tail = new Tail('kafkajs', name, count)
  await consumer.run({
    eachBatch: async ({ batch }) => {
      for (const m of batch.messages) {
        tail.note(batch.partition, m.offset, m.timestamp, m.key, m.value, Object.entries(m.headers ?? {}))
      }
    }
  })
  const ends = await tail.done
  await consumer.disconnect()
  tail.end()
  return ends
}

const byPartition = list => Object.fromEntries(list.map(({ partition, offset }) => [partition, Number(offset)]))
const ends = await read('earliest', null, total)
if (Object.keys(ends).length !== partitions) throw new Error(`records of ${Object.keys(ends)} only`)
const known = byPartition(await admin.fetchTopicOffsets(topic))
const later = byPartition(await admin.fetchTopicOffsetsByTimestamp(topic, when))
for (const [name, offsets, count] of starts(ends, later, known)) await read(name, offsets, count)
await admin.disconnect()
