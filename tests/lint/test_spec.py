#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The netlink specification, the uapi header and the module's policies say the
# same: names, numbers, order, types, what each operation takes.

import os
import re
import sys

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPEC = os.path.join(REPO, 'Documentation/netlink/specs/snapdiff.yaml')
HEADER = os.path.join(REPO, 'module/uapi/linux/snapdiff.h')
NETLINK = os.path.join(REPO, 'module/netlink.c')
# The comment behind an attribute in the header -> the types of the specification
HEADER_TYPES = {'string': 'string', 'binary': 'binary', 'u8': 'u8', 'u32': 'u32', 'u64': 'u64',
                'flag': 'flag', 'nest': 'nest'}
# POLICY_x of netlink.c -> type, checks
POLICIES = {
    'POLICY_VOLUME': ('string', {'max-len': 'name-max'}),
    'POLICY_LABEL': ('string', {'max-len': 'label-max'}),
    'POLICY_GEN': ('u32', {'min': 1}),
    'POLICY_BOOL': ('u8', {'max': 1}),
    'POLICY_U32': ('u32', {}),
    'POLICY_U64': ('u64', {}),
    'POLICY_FLAG': ('flag', {}),
    'POLICY_ON_FULL': ('u8', {'max': 2}),
}


def c_name(name):
    return name.upper().replace('-', '_')


def without_comments(text):
    return re.sub(r'/\*.*?\*/', '', text, flags=re.S)


def parse_enum(text, name):
    """Names and values of an enum of C, in order."""
    body = re.search(r'enum %s \{(.*?)\};' % name, text, re.S)
    if not body:
        return []
    out, value = [], -1
    for entry in without_comments(body.group(1)).split(','):
        m = re.match(r'\s*(\w+)\s*(?:=\s*(\w+))?\s*$', entry)
        if not m:
            continue
        value = int(m.group(2), 0) if m.group(2) else value + 1
        out.append((m.group(1), value))
    return out


class Check:
    def __init__(self):
        self.errors = []

    def equal(self, what, a, b):
        if a != b:
            self.errors.append('%s: %r is not %r' % (what, a, b))


def check_attributes(c, spec, header):
    for aset in spec['attribute-sets']:
        prefix = c_name(aset['name-prefix'])
        want = [(prefix + 'UNSPEC', 0)]
        want += [(prefix + c_name(a['name']), i + 1) for i, a in enumerate(aset['attributes'])]
        want.append(('__' + prefix + 'MAX', len(want)))
        c.equal('attribute set ' + aset['name'], want, parse_enum(header, aset['enum-name']))


def check_attribute_types(c, spec, header):
    for aset in spec['attribute-sets'][:2]:
        prefix = c_name(aset['name-prefix'])
        for a in aset['attributes']:
            if a['type'] == 'pad':
                continue
            m = re.search(r'\b%s,\s*/\* (\w+)' % (prefix + c_name(a['name'])), header)
            c.equal(a['name'] + ': comment in the header', m and HEADER_TYPES.get(m.group(1)), a['type'])
    c.equal('types of statistics', {a['type'] for a in spec['attribute-sets'][2]['attributes']}, {'pad', 'u64'})


def check_commands(c, spec, header):
    want = [('SNAPDIFF_CMD_UNSPEC', 0)]
    want += [('SNAPDIFF_CMD_' + c_name(o['name']), i + 1) for i, o in enumerate(spec['operations']['list'])]
    want.append(('__SNAPDIFF_CMD_MAX', len(want)))
    c.equal('commands', want, parse_enum(header, spec['operations']['enum-name']))


def check_definitions(c, spec, header):
    for d in spec['definitions']:
        name = 'SNAPDIFF_' + c_name(d['name'])
        if d['type'] == 'const':
            m = re.search(r'#define %s\s+(\d+)' % name, header)
            c.equal(d['name'], m and int(m.group(1)), d['value'])
        elif d['type'] == 'enum':
            want = [('SNAPDIFF_' + c_name(e['name']), e['value']) for e in d['entries']]
            c.equal('enum ' + d['name'], want, parse_enum(header, 'snapdiff_' + d['name'].replace('-', '_')))
        else:
            want = [(name + '_' + c_name(e['name']), i) for i, e in enumerate(d['entries'])]
            have = [(n, int(b)) for n, b in re.findall(r'#define (%s_\w+)\s+\(1U << (\d+)\)' % name, header)]
            c.equal('flags ' + d['name'], want, have)


def check_family(c, spec, header):
    m = re.search(r'#define SNAPDIFF_FAMILY_NAME\s+"(\w+)"', header)
    c.equal('family', m and m.group(1), spec['name'])
    m = re.search(r'#define SNAPDIFF_MCGRP_EVENTS\s+"(\w+)"', header)
    c.equal('multicast groups', [m and m.group(1)], [g['name'] for g in spec['mcast-groups']['list']])


def parse_policies(source):
    out = {}
    for name, body in re.findall(r'^POLICY\((\w+)\) = \{(.*?)^\};', source, re.S | re.M):
        out[name] = dict(re.findall(r'\[SNAPDIFF_A_(\w+)\]\s*= (POLICY_\w+),', body))
        if len(out[name]) != body.count('['):
            out[name]['?'] = 'a line that this test does not understand'
    return out


def parse_ops(source):
    """Command -> (policy, do, dump)."""
    table = re.search(r'snap_ops\[\] = \{(.*?)^\};', source, re.S | re.M).group(1)
    out = {}
    for entry in table.split('.cmd = ')[1:]:
        m = re.match(r'SNAPDIFF_CMD_(\w+), OP_POLICY\((\w+)\)', entry)
        if not m:
            out['?'] = entry
            continue
        out[m.group(1)] = (m.group(2), '.doit' in entry, '.dumpit' in entry)
    return out


def request_attributes(op):
    names = set()
    for kind in ('do', 'dump'):
        names |= set(op.get(kind, {}).get('request', {}).get('attributes', []))
    return names


def check_policies(c, spec, source):
    policies, ops = parse_policies(source), parse_ops(source)
    attrs = {a['name']: a for a in spec['attribute-sets'][0]['attributes']}
    wanted = [o for o in spec['operations']['list'] if 'event' not in o]
    c.equal('operations', sorted(ops), sorted(c_name(o['name']) for o in wanted))
    for op in wanted:
        policy, do, dump = ops.get(c_name(op['name']), (None, None, None))
        c.equal(op['name'] + ': policy', policy, op['name'].replace('-', '_'))
        c.equal(op['name'] + ': do', do, 'do' in op)
        c.equal(op['name'] + ': dump', dump, 'dump' in op)
        have = policies.get(policy, {})
        c.equal(op['name'] + ': attributes', sorted(have), sorted(c_name(n) for n in request_attributes(op)))
        for n in request_attributes(op):
            want = (attrs[n]['type'], attrs[n].get('checks', {}))
            c.equal('%s: policy of %s' % (op['name'], n), POLICIES.get(have.get(c_name(n))), want)


def check_macros(c, spec, source):
    """The table above says what the macros are; hold it against their definitions."""
    want = {
        'POLICY_VOLUME': '{ .type = NLA_NUL_STRING, .len = SNAPDIFF_NAME_MAX }',
        'POLICY_LABEL': '{ .type = NLA_NUL_STRING, .len = SNAPDIFF_LABEL_MAX }',
        'POLICY_GEN': 'NLA_POLICY_MIN(NLA_U32, 1)',
        'POLICY_BOOL': 'NLA_POLICY_MAX(NLA_U8, 1)',
        'POLICY_U32': '{ .type = NLA_U32 }',
        'POLICY_U64': '{ .type = NLA_U64 }',
        'POLICY_FLAG': '{ .type = NLA_FLAG }',
        'POLICY_ON_FULL': 'NLA_POLICY_MAX(NLA_U8, SNAPDIFF_ON_FULL_FAIL)',
    }
    c.equal('policy macros', dict(re.findall(r'#define (POLICY_\w+)\s+(.*\S)', source)), want)


def check_references(c, spec):
    """Names that the specification uses are defined in it."""
    enums = {d['name'] for d in spec['definitions']}
    sets = {s['name']: {a['name'] for a in s['attributes']} for s in spec['attribute-sets']}
    for s in spec['attribute-sets']:
        for a in s['attributes']:
            if 'enum' in a:
                c.equal(a['name'] + ': enum is defined', a['enum'] in enums, True)
            if 'nested-attributes' in a:
                c.equal(a['name'] + ': set is defined', a['nested-attributes'] in sets, True)
            for value in a.get('checks', {}).values():
                c.equal('%s: check %s is defined' % (a['name'], value), isinstance(value, int) or value in enums, True)
    for op in spec['operations']['list']:
        lists = [op.get('event', {})] + [op.get(k, {}).get(d, {}) for k in ('do', 'dump') for d in ('request', 'reply')]
        for names in lists:
            unknown = set(names.get('attributes', [])) - sets[op['attribute-set']]
            c.equal(op['name'] + ': unknown attributes', unknown, set())


def main():
    try:
        import yaml
    except ImportError:
        print('1..0 # SKIP python3-yaml is not installed')
        return 4
    spec = yaml.safe_load(open(SPEC))
    header, source = open(HEADER).read(), open(NETLINK).read()
    cases = [
        ('the specification is consistent in itself', lambda c: check_references(c, spec)),
        ('family and multicast group', lambda c: check_family(c, spec, header)),
        ('commands have the numbers of the header', lambda c: check_commands(c, spec, header)),
        ('attributes have the numbers of the header', lambda c: check_attributes(c, spec, header)),
        ('attributes have the types of the header', lambda c: check_attribute_types(c, spec, header)),
        ('constants, enums and flags', lambda c: check_definitions(c, spec, header)),
        ('policy macros are what this test takes them for', lambda c: check_macros(c, spec, source)),
        ('operations and policies of the module', lambda c: check_policies(c, spec, source)),
    ]
    print('1..%d' % len(cases))
    failed = 0
    for i, (name, run) in enumerate(cases, 1):
        c = Check()
        run(c)
        for e in c.errors:
            print('# ' + e)
        print('%s %d %s' % ('not ok' if c.errors else 'ok', i, name))
        failed += bool(c.errors)
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
