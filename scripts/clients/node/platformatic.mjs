// @platformatic/kafka: creates and produces; confluent-kafka reads it back, and then platformatic_read.mjs.
//
//   node platformatic.mjs BOOTSTRAP TOPIC BASE OUT

import { openSync, writeSync } from 'node:fs'
import { Admin, Producer } from '@platformatic/kafka'
import { base, bootstrap, chunks, out, partitions, plan, produced, record, topic } from './record.mjs'

const shared = { clientId: 'ringbolt-platformatic', bootstrapBrokers: [bootstrap] }

const admin = new Admin(shared)
await admin.createTopics({ topics: [topic], partitions, replicas: 1 })
const metadata = await admin.metadata({ topics: [topic] })
if (metadata.topics.get(topic).partitionsCount !== partitions) throw new Error(`${metadata.topics.get(topic).partitionsCount} partitions`)
await admin.close()
console.log(`ok   platformatic: created ${topic}`)

const reports = openSync(`${out}/reports.tsv`, 'w')
for (const run of plan) {
  const producer = new Producer({ ...shared, idempotent: run.idempotent, acks: run.acks, compression: run.codec })
  for (const [from, to] of chunks(run, 500)) {
    const messages = []
    for (let i = from; i < to; i++) {
      const { key, value, headers } = record('platformatic', run.name, i)
      messages.push({
        topic,
        key: key ?? undefined,
        value: value ?? undefined,
        headers: new Map(Object.entries(headers).map(([name, v]) => [Buffer.from(name), v])),
        timestamp: BigInt(base + run.first + i)
      })
    }
    const { offsets = [] } = await producer.send({ messages })
    if (run.acks === 0) continue
    for (const { partition, offset } of offsets) {
      writeSync(reports, `${run.first + from}-${run.first + to}\t${partition}\t${offset}\n`)
    }
  }
  await producer.close()
  produced('platformatic', run)
}
