// kafkajs: creates and produces; confluent-kafka reads it back, and then kafkajs_read.mjs.
//
//   node kafkajs.mjs BOOTSTRAP TOPIC BASE OUT

import { openSync, writeSync } from 'node:fs'
import kafkajs from 'kafkajs'
import './kafkajs_codecs.mjs'
import { base, bootstrap, chunks, out, partitions, plan, produced, record, topic } from './record.mjs'

const { CompressionTypes, Kafka, Partitioners, logLevel } = kafkajs

const codecs = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }

const kafka = new Kafka({ clientId: 'ringbolt-kafkajs', brokers: [bootstrap], logLevel: logLevel.ERROR })

const admin = kafka.admin()
await admin.connect()
await admin.createTopics({ topics: [{ topic, numPartitions: partitions, replicationFactor: 1 }], waitForLeaders: true })
const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
if (topics[0].partitions.length !== partitions) throw new Error(`${topics[0].partitions.length} partitions`)
await admin.disconnect()
console.log(`ok   kafkajs: created ${topic}`)

const reports = openSync(`${out}/reports.tsv`, 'w')
for (const run of plan) {
  const producer = kafka.producer({ idempotent: run.idempotent, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  for (const [from, to] of chunks(run, 500)) {
    const messages = []
    for (let i = from; i < to; i++) {
      messages.push({ ...record('kafkajs', run.name, i), timestamp: `${base + run.first + i}` })
    }
    const results = await producer.send({ topic, messages, acks: run.acks, compression: codecs[run.codec] })
    if (run.acks === 0) continue
    for (const { partition, errorCode, baseOffset } of results) {
      if (errorCode) throw new Error(`error ${errorCode} in ${topic}/${partition}`)
      writeSync(reports, `${run.first + from}-${run.first + to}\t${partition}\t${baseOffset}\n`)
    }
  }
  await producer.disconnect()
  produced('kafkajs', run)
}
