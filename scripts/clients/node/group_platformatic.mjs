// A member of a group: @platformatic/kafka; see group_member.py.

import { Consumer } from '@platformatic/kafka'
import * as member from './member.mjs'

const { topic } = member
const settings = {
  clientId: member.name,
  bootstrapBrokers: member.bootstrap.split(','),
  groupId: member.group,
  groupProtocol: member.protocol,
  autocommit: false,
  maxWaitTime: 100,
  highWaterMark: 1,
  ...(member.instance && { groupInstanceId: member.instance }),
  ...(member.protocol === 'classic' && { sessionTimeout: member.session, rebalanceTimeout: 2 * member.session, heartbeatInterval: member.heartbeat })
}
const consumer = new Consumer(settings)

// What a stream has read ahead outlives a rebalance, and it is delivered although it is another's by then: so each join
// begins a stream anew, from what is committed.
let mine = new Set()
let joins = 0
let stream
function release (kind) {
  member.moved(kind, mine, consumer.generationId)
  mine = new Set()
}
consumer.on('consumer:group:rebalance', () => release('revoked'))
consumer.on('consumer:group:join', ({ assignments }) => {
  if (mine.size) release('lost')
  joins++
  mine = new Set(assignments?.find(a => a.topic === topic)?.partitions ?? [])
  member.moved('assigned', mine, consumer.generationId)
  stream?.close(() => {})
})

let call = 0
let stopped = false
member.stopping.then(() => {
  stopped = true
  stream?.close(() => {})
})

async function read () {
  stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest' })
  const joined = joins
  for await (const { partition, offset, key, value, commit } of stream) {
    if (stopped || joins !== joined || !mine.has(partition)) return
    call++
    member.polled(partition, offset, key, value, call)
    try {
      await commit()
      member.committed(partition, offset + 1n)
    } catch (error) {
      member.complain('commit', error)
      return
    }
  }
}

while (!stopped) {
  try {
    await read()
  } catch (error) {
    member.complain('stream', error)
    await member.sleep(100)
  } finally {
    stream?.destroy()
  }
}
member.closing()
await consumer.close(true)
