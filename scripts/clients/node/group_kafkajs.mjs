// A member of a group: kafkajs; see group_member.py.

import kafkajs from 'kafkajs'
import * as member from './member.mjs'

const { Kafka, PartitionAssigners, logLevel } = kafkajs
const { topic } = member
const kafka = new Kafka({ clientId: member.name, brokers: member.bootstrap.split(','), logLevel: logLevel.NOTHING })
const consumer = kafka.consumer({
  groupId: member.group,
  sessionTimeout: member.session,
  heartbeatInterval: member.heartbeat,
  maxWaitTimeInMs: 100,
  partitionAssigners: [PartitionAssigners.roundRobin]
})

let mine = new Set()
function release (kind) {
  member.moved(kind, mine)
  mine = new Set()
}
consumer.on(consumer.events.REBALANCING, () => release('revoked'))
consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
  // A member that was thrown out joins again without a word before.
  if (mine.size) release('lost')
  mine = new Set(payload.memberAssignment[topic] ?? [])
  member.moved('assigned', mine)
})
consumer.on(consumer.events.CRASH, ({ payload }) => member.complain('crash', payload.error))

let call = 0
await consumer.connect()
await consumer.subscribe({ topics: [topic], fromBeginning: true })
await consumer.run({
  autoCommit: false,
  eachBatchAutoResolve: false,
  eachBatch: async ({ batch, resolveOffset, commitOffsetsIfNecessary, isRunning, isStale }) => {
    const { partition } = batch
    // After the first batch of a fetch was refused, the others still come, although the group moves on.
    if (!isRunning() || isStale() || !mine.has(partition)) return
    call++
    let next
    for (const { offset, key, value } of batch.messages.slice(0, 50)) {
      member.polled(partition, offset, key, value, call)
      resolveOffset(offset)
      next = BigInt(offset) + 1n
    }
    await member.sleep(member.work)
    // What is refused is thrown to the client, which joins again and begins where the group has committed.
    await commitOffsetsIfNecessary({ topics: [{ topic, partitions: [{ partition, offset: `${next}` }] }] })
    member.committed(partition, next)
  }
})

await member.stopping
await consumer.stop()
member.closing()
await consumer.disconnect()
// After a crash the client may have begun twice, and the second beginning knows nothing of an end.
process.exit(0)
