// A W3C VC as JWT, judged by jose with the key of the issuer's did:web document.
import { calculateJwkThumbprint, decodeJwt, decodeProtectedHeader, importJWK, jwtVerify } from 'jose'

// documentURL maps a did:web to where its document is.
function documentURL(did) {
  const [host, ...path] = did.slice('did:web:'.length).split(':')
  return `https://${decodeURIComponent(host)}/${path.length ? path.join('/') : '.well-known'}/did.json`
}

async function fetchKey(checks, did, kid) {
  const response = await fetch(documentURL(did))
  checks.expect('did:web: the document is served as JSON', response.ok && /json/.test(response.headers.get('content-type') ?? ''), response.status)
  const document = await response.json()
  checks.expect('did:web: id is the DID', document.id === did, document.id)
  checks.expect('did:web: kid may assert', document.assertionMethod?.includes(kid), kid)
  const method = document.verificationMethod?.find((m) => m.id === kid)
  if (!method?.publicKeyJwk) throw new Error('kid is not among the verification methods')
  return method.publicKeyJwk
}

// judge verifies signature, claims and the binding.
export async function judge(checks, credential, { holder }) {
  const decoded = await checks.run('jwt_vc: parses', () => ({ header: decodeProtectedHeader(credential), payload: decodeJwt(credential) }))
  if (!decoded) return
  const { header, payload } = decoded
  const jwk = await checks.run('jwt_vc: the issuer\'s key is found', () => fetchKey(checks, payload.iss, header.kid))
  if (!jwk) return
  await checks.run('jwt_vc: jose verifies signature and times', async () =>
    jwtVerify(credential, await importJWK(jwk, header.alg), { algorithms: [header.alg], issuer: payload.iss, typ: 'JWT' })
  )
  const { vc } = payload
  checks.expect('jwt_vc: @context begins with VCDM 1.1', vc?.['@context']?.[0] === 'https://www.w3.org/2018/credentials/v1')
  checks.expect('jwt_vc: type has VerifiableCredential and one more', vc?.type?.includes('VerifiableCredential') && vc.type.length > 1, vc?.type)
  checks.expect('jwt_vc: issuer is iss', (vc?.issuer?.id ?? vc?.issuer) === payload.iss)
  checks.expect('jwt_vc: issuanceDate is nbf', Date.parse(vc?.issuanceDate) === payload.nbf * 1000, vc?.issuanceDate)
  checks.expect('jwt_vc: expirationDate is exp', vc?.expirationDate === undefined || Date.parse(vc.expirationDate) === payload.exp * 1000, vc?.expirationDate)
  checks.expect('jwt_vc: id is jti', vc?.id === payload.jti, vc?.id)
  if (holder) {
    const subject = payload.sub ?? ''
    checks.expect('jwt_vc: credentialSubject.id is sub', vc?.credentialSubject?.id === subject)
    const bound = subject.startsWith('did:jwk:') ? JSON.parse(Buffer.from(subject.slice('did:jwk:'.length), 'base64url')) : payload.cnf?.jwk
    checks.expect('jwt_vc: bound to the wallet\'s key', bound && (await calculateJwkThumbprint(bound)) === (await calculateJwkThumbprint(holder)), subject)
  }
}
