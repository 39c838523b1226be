// The wallet's keys, and what a wallet provider says of them and of the wallet.
import { X509Certificate, createPrivateKey, randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SignJWT, exportJWK, generateKeyPair, importJWK } from 'jose'
import { x509 } from './x509.mjs'

// walletID is the client_id of the wallet that the attester vouches for.
export const walletID = 'https://wallet.example/app'

export const now = () => Math.floor(Date.now() / 1000)

// newKey makes a key pair for ES256, ES384 or EdDSA.
export async function newKey(alg = 'ES256') {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
  const { kty, crv, x, y } = await exportJWK(publicKey)
  return { alg, privateKey, publicKey, publicJwk: y ? { kty, crv, x, y } : { kty, crv, x } }
}

// did returns the key's did:jwk URL, with the fragment.
export const did = (key) => `did:jwk:${Buffer.from(JSON.stringify(key.publicJwk)).toString('base64url')}#0`

// certify gives the key a self-signed certificate, base64 of its DER.
export async function certify(key) {
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=Wallet',
    keys: { privateKey: key.privateKey, publicKey: key.publicKey },
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  })
  return Buffer.from(certificate.rawData).toString('base64')
}

export const sign = (key, header, payload) => new SignJWT(payload).setProtectedHeader({ alg: key.alg, ...header }).sign(key.privateKey)

// readAttester reads the wallet provider's key and certificate; the anchor stays out of x5c.
export function readAttester(folder) {
  const certificate = new X509Certificate(readFileSync(join(folder, 'attester.pem')))
  return { alg: 'ES256', privateKey: createPrivateKey(readFileSync(join(folder, 'attester.key.pem'))), x5c: [certificate.raw.toString('base64')] }
}

// keyAttestation vouches for keys in the form of 1.0 (OpenID4VCI 1.0 App. D.1).
export const keyAttestation = (attester, keys, nonce) =>
  sign(attester, { typ: 'key-attestation+jwt', x5c: attester.x5c }, {
    iat: now(),
    exp: now() + 3600,
    attested_keys: keys.map((key) => key.publicJwk),
    key_storage: ['iso_18045_high'],
    user_authentication: ['iso_18045_high'],
    ...(nonce && { nonce }),
  })

// challengedPoP proves possession of an attested wallet's key with a challenge
// of the issuer's (ABCA -07 §5.2).
export const challengedPoP = (key, audience, challenge) =>
  sign(key, { typ: 'oauth-client-attestation-pop+jwt' }, { iss: walletID, aud: audience, jti: randomUUID(), iat: now(), challenge })

// readClient reads a registered client's private JWK.
export async function readClient(id, file) {
  const jwk = JSON.parse(readFileSync(file, 'utf8'))
  return { id, kid: jwk.kid, alg: jwk.alg, privateKey: await importJWK(jwk, jwk.alg) }
}

// clientAssertion authenticates a registered client (RFC 7523 §3).
export const clientAssertion = (client, audience) =>
  sign(client, { kid: client.kid, typ: 'JWT' }, { iss: client.id, sub: client.id, aud: audience, jti: randomUUID(), iat: now(), exp: now() + 60 })
