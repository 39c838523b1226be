// An IssuerSigned, judged by @owf/mdoc; signatures by WebCrypto.
import { CoseKey, Holder, IssuerSigned } from '@owf/mdoc'
import { calculateJwkThumbprint } from 'jose'
import { anchors, publicJwk, verifyChain, x509 } from './x509.mjs'

const hashes = { ES256: 'SHA-256', ES384: 'SHA-384', ES512: 'SHA-512' }
const curves = { ES256: 'P-256', ES384: 'P-384', ES512: 'P-521' }

const context = {
  crypto: {
    digest: async ({ digestAlgorithm, bytes }) => new Uint8Array(await globalThis.crypto.subtle.digest(digestAlgorithm, bytes)),
    random: (length) => globalThis.crypto.getRandomValues(new Uint8Array(length)),
  },
  cose: {
    sign1: {
      verify: async ({ key, sign1 }) => {
        const algorithm = sign1.signatureAlgorithmName
        const imported = await globalThis.crypto.subtle.importKey('jwk', { ...key.jwk, crv: curves[algorithm] }, { name: 'ECDSA', namedCurve: curves[algorithm] }, false, ['verify'])
        return globalThis.crypto.subtle.verify({ name: 'ECDSA', hash: hashes[algorithm] }, imported, sign1.signature, sign1.toBeSigned)
      },
    },
  },
  x509: {
    getIssuerNameField: ({ certificate, field }) => new x509.X509Certificate(certificate).issuerName.getField(field),
    getPublicKey: async ({ certificate }) => {
      const jwk = await publicJwk(new x509.X509Certificate(certificate))
      // The library knows P-384 and P-521 by lower-case names only.
      return CoseKey.fromJwk(jwk.crv === 'P-256' ? jwk : { ...jwk, crv: jwk.crv.toLowerCase() })
    },
    verifyCertificateChain: async ({ trustedCertificates, x5chain, now }) => {
      await verifyChain(x5chain, trustedCertificates, now)
    },
    getCertificateData: async ({ certificate }) => {
      const c = new x509.X509Certificate(certificate)
      return {
        issuerName: c.issuerName.toString(),
        subjectName: c.subjectName.toString(),
        serialNumber: c.serialNumber,
        thumbprint: Buffer.from(await c.getThumbprint(globalThis.crypto)).toString('hex'),
        notBefore: c.notBefore,
        notAfter: c.notAfter,
        pem: c.toString('pem'),
      }
    },
  },
}

// judge verifies the credential and that it is bound to the wallet's key.
export async function judge(checks, credential, { iaca, holder }) {
  checks.expect('mdoc: base64url without padding', /^[A-Za-z0-9_-]+$/.test(credential))
  const issuerSigned = await checks.run('mdoc: IssuerSigned parses', () => IssuerSigned.fromEncodedForOid4Vci(credential))
  if (!issuerSigned) return
  await checks.run('mdoc: @owf/mdoc verifies it', () =>
    Holder.verifyIssuerSigned(
      {
        issuerSigned,
        trustedCertificates: anchors(iaca),
        verificationCallback: ({ status, check, reason }) => checks.report(`mdoc: ${check}`, status !== 'FAILED', reason),
      },
      context
    )
  )
  const mso = issuerSigned.issuerAuth.mobileSecurityObject
  checks.report('mdoc: docType', Boolean(mso.docType), mso.docType)
  if (holder) {
    const deviceKey = mso.deviceKeyInfo.deviceKey.jwk
    const bound = { ...deviceKey, crv: deviceKey.crv.replace(/^p-/, 'P-') } // see getPublicKey
    checks.expect('mdoc: bound to the wallet\'s key', (await calculateJwkThumbprint(bound)) === (await calculateJwkThumbprint(holder)), JSON.stringify(bound))
  }
}
