// Code generated from dst.yaml. DO NOT EDIT.
package abi

const FamilyName = "dst"
const FamilyVersion = 1

type Kind uint32

const (
	KindRemote Kind = 1
	KindExport Kind = 2
)

type Attach uint32

const (
	AttachNone   Attach = 0
	AttachNbd    Attach = 1
	AttachSocket Attach = 2
)

type State uint32

const (
	StateConfigured  State = 0
	StateConnecting  State = 1
	StateHandshake   State = 2
	StateRecovery    State = 3
	StateEstablished State = 4
	StateBroken      State = 5
	StatePause       State = 6
	StateFailed      State = 7
	StateClosed      State = 8
	StateServing     State = 9
)

type NodeFlag uint32

const (
	NodeFlagReadOnly     NodeFlag = 1
	NodeFlagShared       NodeFlag = 2
	NodeFlagWritethrough NodeFlag = 4
	NodeFlagStarted      NodeFlag = 8
	NodeFlagDirect       NodeFlag = 16
	NodeFlagBuffered     NodeFlag = 32
)

type DelFlag uint32

const (
	DelFlagForce DelFlag = 1
)

type Permission uint32

const (
	PermissionRead  Permission = 1
	PermissionWrite Permission = 2
)

type RuleKind uint32

const (
	RuleKindAny   RuleKind = 1
	RuleKindInet  RuleKind = 2
	RuleKindInet6 RuleKind = 3
	RuleKindUnix  RuleKind = 4
	RuleKindVsock RuleKind = 5
)

type EventKind uint32

const (
	EventKindAdd     EventKind = 1
	EventKindDel     EventKind = 2
	EventKindStart   EventKind = 3
	EventKindChange  EventKind = 4
	EventKindState   EventKind = 5
	EventKindSession EventKind = 6
	EventKindRefuse  EventKind = 7
	EventKindError   EventKind = 8
)
const (
	AttrNodeName           = 1
	AttrNodeKind           = 2
	AttrNodeDevice         = 3
	AttrNodeSize           = 4
	AttrNodeAddress        = 5
	AttrNodeExport         = 6
	AttrNodeAttach         = 7
	AttrNodeSocket         = 8
	AttrNodeFlags          = 9
	AttrNodeFlagsMask      = 10
	AttrNodeMaxPages       = 11
	AttrNodeDepth          = 12
	AttrNodeArena          = 13
	AttrNodeKeepalive      = 14
	AttrNodeRequestTimeout = 15
	AttrNodeFailAfter      = 16
	AttrNodeLogAge         = 17
	AttrNodeHash           = 18
	AttrNodeWorkers        = 19
	AttrNodeState          = 20
	AttrNodeStateAge       = 21
	AttrNodeReason         = 22
	AttrNodeEpoch          = 23
	AttrNodeClientID       = 24
	AttrNodeVerifier       = 25
	AttrNodeStoreID        = 26
	AttrNodePermission     = 27
	AttrNodeBlockMin       = 28
	AttrNodeMaxSize        = 29
	AttrNodeInFlight       = 30
	AttrNodeOldest         = 31
	AttrNodeUnflushed      = 32
	AttrNodeSession        = 33
	AttrNodeRule           = 34
	AttrNodeWarning        = 35
	AttrNodeTransition     = 36
	AttrNodeDefault        = 37
	AttrNodeCounters       = 38
	AttrNodePeer           = 39
	AttrNodeDelFlags       = 40
)
const (
	AttrAddressType     = 1
	AttrAddressProto    = 2
	AttrAddressSockaddr = 3
)
const (
	AttrRuleKind       = 1
	AttrRulePrefix     = 2
	AttrRulePrefixLen  = 3
	AttrRuleID         = 4
	AttrRulePermission = 5
)
const (
	AttrSessionPeer       = 1
	AttrSessionClientID   = 2
	AttrSessionEpoch      = 3
	AttrSessionPermission = 4
	AttrSessionAge        = 5
	AttrSessionInFlight   = 6
	AttrSessionWorkers    = 7
	AttrSessionDraining   = 8
)
const (
	AttrTransitionState  = 1
	AttrTransitionAge    = 2
	AttrTransitionReason = 3
)
const (
	AttrCountersReads          = 1
	AttrCountersWrites         = 2
	AttrCountersFlushes        = 3
	AttrCountersDiscards       = 4
	AttrCountersZeroes         = 5
	AttrCountersReadBytes      = 6
	AttrCountersWrittenBytes   = 7
	AttrCountersErrors         = 8
	AttrCountersConnects       = 9
	AttrCountersBreaks         = 10
	AttrCountersResent         = 11
	AttrCountersRefused        = 12
	AttrCountersDigestErrors   = 13
	AttrCountersProtocolErrors = 14
	AttrCountersMemoryWaits    = 15
)
const (
	AttrCryptoName          = 1
	AttrCryptoCipher        = 2
	AttrCryptoHash          = 3
	AttrCryptoCipherKeyFile = 4
	AttrCryptoHashKeyFile   = 5
	AttrCryptoCipherKey     = 6
	AttrCryptoHashKey       = 7
	AttrCryptoThreads       = 8
)
const (
	AttrSysVersion     = 1
	AttrSysPID         = 2
	AttrSysUptime      = 3
	AttrSysRunDir      = 4
	AttrSysStateDir    = 5
	AttrSysDevDir      = 6
	AttrSysNodes       = 7
	AttrSysSessions    = 8
	AttrSysSubscribers = 9
	AttrSysBudget      = 10
	AttrSysBudgetUsed  = 11
	AttrSysHeap        = 12
	AttrSysProtection  = 13
)
const (
	AttrProtectionName   = 1
	AttrProtectionActive = 2
	AttrProtectionReason = 3
)
const (
	AttrEventSeq    = 1
	AttrEventLost   = 2
	AttrEventKind   = 3
	AttrEventTime   = 4
	AttrEventName   = 5
	AttrEventState  = 6
	AttrEventReason = 7
	AttrEventPeer   = 8
)
const (
	CmdDelNode     = 1
	CmdAddRemote   = 2
	CmdAddExport   = 3
	CmdCrypto      = 4
	CmdSecurity    = 5
	CmdStart       = 6
	CmdGet         = 7
	CmdSet         = 8
	CmdSecurityDel = 9
	CmdSecurityGet = 10
	CmdStats       = 11
	CmdSys         = 12
	CmdSubscribe   = 13
	CmdUnsubscribe = 14
	CmdEvent       = 15
)
