// Reads one task a line and answers each with one line: another library's
// opinion on JWEs. {"encrypt": {jwk, header, plaintext}} gives {compact};
// {"decrypt": {jwk, compact}} gives {plaintext, header}; a fault gives {error}.
import { createInterface } from 'node:readline'
import { CompactEncrypt, compactDecrypt, importJWK } from 'jose'

const tasks = {
  async encrypt({ jwk, header, plaintext }) {
    const key = await importJWK(jwk, header.alg)
    return { compact: await new CompactEncrypt(new TextEncoder().encode(plaintext)).setProtectedHeader(header).encrypt(key) }
  },
  async decrypt({ jwk, compact }) {
    const { plaintext, protectedHeader } = await compactDecrypt(compact, await importJWK(jwk))
    return { plaintext: new TextDecoder().decode(plaintext), header: protectedHeader }
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const [[name, task]] = Object.entries(JSON.parse(line))
  let answer
  try {
    answer = await tasks[name](task)
  } catch (e) {
    answer = { error: `${e.name}: ${e.message}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
