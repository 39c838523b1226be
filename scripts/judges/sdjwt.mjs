// An SD-JWT VC, judged by @sd-jwt/sd-jwt-vc; the chain in x5c by x509.mjs.
import { createHash } from 'node:crypto'
import { SDJwtVcInstance } from '@sd-jwt/sd-jwt-vc'
import { calculateJwkThumbprint, compactVerify, decodeProtectedHeader, importJWK } from 'jose'
import { anchors, publicJwk, verifyChain } from './x509.mjs'

// judge verifies signature, chain, disclosures and the binding.
export async function judge(checks, credential, { iaca, holder, format }) {
  checks.expect('sd-jwt: ends with ~', credential.endsWith('~'))
  const jwt = credential.split('~')[0]
  const header = await checks.run('sd-jwt: header parses', () => decodeProtectedHeader(jwt))
  if (!header) return
  checks.expect(`sd-jwt: typ is ${format}`, header.typ === format, header.typ)
  checks.expect('sd-jwt: x5c is there', Array.isArray(header.x5c) && header.x5c.length > 0)
  const leaf = await checks.run('sd-jwt: x5c leads to the trusted CA', () => verifyChain(header.x5c.map((c) => Buffer.from(c, 'base64')), anchors(iaca)))
  if (!leaf) return
  const key = await importJWK(await publicJwk(leaf), header.alg)
  const instance = new SDJwtVcInstance({
    hasher: (data, algorithm) => createHash(algorithm.replace('-', '')).update(typeof data === 'string' ? data : Buffer.from(data)).digest(),
    hashAlg: 'sha-256',
    verifier: async (data, signature) => {
      await compactVerify(`${data}.${signature}`, key)
      return true
    },
    loadTypeMetadataFormat: false,
  })
  const verified = await checks.run('sd-jwt: @sd-jwt/sd-jwt-vc verifies it', () => instance.verify(credential))
  const claims = await checks.run('sd-jwt: every disclosure has its place', () => instance.getClaims(credential))
  if (!verified || !claims) return
  const left = JSON.stringify(claims)
  checks.expect('sd-jwt: nothing is left hidden', !left.includes('"_sd"') && !left.includes('"..."'))
  checks.report('sd-jwt: vct', typeof claims.vct === 'string', claims.vct)
  const names = new URL(claims.iss ?? 'https://invalid.invalid').hostname
  checks.expect('sd-jwt: the leaf names iss', leaf.getExtension('2.5.29.17') && JSON.stringify(leaf.getExtension('2.5.29.17').names.toJSON()).includes(names), claims.iss)
  if (holder) {
    checks.expect('sd-jwt: bound to the wallet\'s key', (await calculateJwkThumbprint(claims.cnf?.jwk)) === (await calculateJwkThumbprint(holder)))
    checks.expect('sd-jwt: cnf.jwk has only public members', !claims.cnf.jwk.d)
  }
}
