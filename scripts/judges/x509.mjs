// Certificate chains, judged by @peculiar/x509 and by OpenSSL as node has it.
import { X509Certificate as NodeCertificate } from 'node:crypto'
import * as x509 from '@peculiar/x509'

x509.cryptoProvider.set(globalThis.crypto)

// verifyChain checks that chain, DER leaf first, leads to one of the trusted
// certificates and returns the leaf; it throws when anything is wrong.
export async function verifyChain(chain, trusted, now = new Date()) {
  const certificates = chain.map((der) => new x509.X509Certificate(der))
  const anchors = trusted.map((der) => new x509.X509Certificate(der))
  if (certificates.some((c) => anchors.some((a) => a.equal(c)))) throw new Error('the trust anchor is in the chain')
  const leaf = certificates[0]
  if (await leaf.isSelfSigned()) throw new Error('the leaf is self-signed')
  const built = await new x509.X509ChainBuilder({ certificates: [...certificates.slice(1), ...anchors] }).build(leaf)
  const last = built[built.length - 1]
  if (!anchors.some((a) => a.equal(last))) throw new Error('the chain does not end at a trusted certificate')
  for (let i = 0; i < built.length; i++) {
    const issuer = built[Math.min(i + 1, built.length - 1)]
    if (!(await built[i].verify({ publicKey: issuer.publicKey, date: now }))) throw new Error(`certificate ${i + 1} does not verify`)
    const [child, parent] = [built[i], issuer].map((c) => new NodeCertificate(Buffer.from(c.rawData)))
    if (!child.checkIssued(parent) || !child.verify(parent.publicKey)) throw new Error(`certificate ${i + 1} is not issued by the next, says OpenSSL`)
  }
  return leaf
}

// anchors reads the certificates of a PEM file as DER.
export function anchors(pem) {
  return x509.PemConverter.decode(pem.toString('utf8')).map((der) => new Uint8Array(der))
}

// publicJwk returns a certificate's public key.
export async function publicJwk(certificate) {
  const key = await certificate.publicKey.export(globalThis.crypto)
  const { kty, crv, x, y } = await globalThis.crypto.subtle.exportKey('jwk', key)
  return { kty, crv, x, ...(y ? { y } : {}) }
}

export { x509 }
