//! The table of error codes.

use super::{EXPERIMENTER, NONE, NX, ONF};

errors! {
    /// Versions don't agree.
    HelloFailed(NONE, 0, "OFPHFC_") {
        /// No version in common.
        Incompatible = 0, "INCOMPATIBLE";
        /// Not permitted.
        Eperm = 1, "EPERM";
    }
    /// The request wasn't understood.
    BadRequest(NONE, 1, "OFPBRC_") {
        /// A version that isn't spoken here.
        BadVersion = 0, "BAD_VERSION";
        /// A type of message that isn't known.
        BadType = 1, "BAD_TYPE";
        /// A kind of multipart message that isn't known.
        BadMultipart = 2, "BAD_MULTIPART";
        /// An experimenter that isn't known.
        BadExperimenter = 3, "BAD_EXPERIMENTER";
        /// A kind of the experimenter's that isn't known.
        BadExpType = 4, "BAD_EXP_TYPE";
        /// Not permitted.
        Eperm = 5, "EPERM";
        /// A length that can't be.
        BadLen = 6, "BAD_LEN";
        /// The buffer has been used.
        BufferEmpty = 7, "BUFFER_EMPTY";
        /// There is no such buffer.
        BufferUnknown = 8, "BUFFER_UNKNOWN";
        /// There is no such table.
        BadTableId = 9, "BAD_TABLE_ID";
        /// The controller is a slave.
        IsSlave = 10, "IS_SLAVE";
        /// There is no such port.
        BadPort = 11, "BAD_PORT";
        /// The packet of a packet-out can't be.
        BadPacket = 12, "BAD_PACKET";
        /// The request has too many parts.
        MultipartBufferOverflow = 13, "MULTIPART_BUFFER_OVERFLOW";
    }
    /// An action isn't right.
    BadAction(NONE, 2, "OFPBAC_") {
        /// A type that isn't known.
        BadType = 0, "BAD_TYPE";
        /// A length that can't be.
        BadLen = 1, "BAD_LEN";
        /// An experimenter that isn't known.
        BadExperimenter = 2, "BAD_EXPERIMENTER";
        /// An action of the experimenter's that isn't known.
        BadExpType = 3, "BAD_EXP_TYPE";
        /// The output port can't be.
        BadOutPort = 4, "BAD_OUT_PORT";
        /// An argument can't be.
        BadArgument = 5, "BAD_ARGUMENT";
        /// Not permitted.
        Eperm = 6, "EPERM";
        /// Too many actions.
        TooMany = 7, "TOO_MANY";
        /// The queue can't be.
        BadQueue = 8, "BAD_QUEUE";
        /// There is no such group.
        BadOutGroup = 9, "BAD_OUT_GROUP";
        /// It doesn't go with the match, or lacks what it presupposes.
        MatchInconsistent = 10, "MATCH_INCONSISTENT";
        /// An order that isn't done.
        UnsupportedOrder = 11, "UNSUPPORTED_ORDER";
        /// A tag that isn't done.
        BadTag = 12, "BAD_TAG";
        /// A field that can't be set.
        BadSetType = 13, "BAD_SET_TYPE";
        /// A field whose length can't be.
        BadSetLen = 14, "BAD_SET_LEN";
        /// A value that the field can't have.
        BadSetArgument = 15, "BAD_SET_ARGUMENT";
    }
    /// An instruction isn't right.
    BadInstruction(NONE, 3, "OFPBIC_") {
        /// One that isn't known.
        UnknownInst = 0, "UNKNOWN_INST";
        /// One that isn't done.
        UnsupInst = 1, "UNSUP_INST";
        /// A table that can't be.
        BadTableId = 2, "BAD_TABLE_ID";
        /// Metadata that can't be.
        UnsupMetadata = 3, "UNSUP_METADATA";
        /// A mask of the metadata that can't be.
        UnsupMetadataMask = 4, "UNSUP_METADATA_MASK";
        /// An experimenter that isn't known.
        BadExperimenter = 5, "BAD_EXPERIMENTER";
        /// An instruction of the experimenter's that isn't known.
        BadExpType = 6, "BAD_EXP_TYPE";
        /// A length that can't be.
        BadLen = 7, "BAD_LEN";
        /// Not permitted.
        Eperm = 8, "EPERM";
    }
    /// A match isn't right.
    BadMatch(NONE, 4, "OFPBMC_") {
        /// A type that isn't known.
        BadType = 0, "BAD_TYPE";
        /// A length that can't be.
        BadLen = 1, "BAD_LEN";
        /// A tag that isn't done.
        BadTag = 2, "BAD_TAG";
        /// A mask of Ethernet addresses that isn't done.
        BadDlAddrMask = 3, "BAD_DL_ADDR_MASK";
        /// A mask of network addresses that isn't done.
        BadNwAddrMask = 4, "BAD_NW_ADDR_MASK";
        /// Fields left out that can't be.
        BadWildcards = 5, "BAD_WILDCARDS";
        /// A field that isn't known.
        BadField = 6, "BAD_FIELD";
        /// A value that can't be.
        BadValue = 7, "BAD_VALUE";
        /// A mask that can't be.
        BadMask = 8, "BAD_MASK";
        /// A field without what it presupposes.
        BadPrereq = 9, "BAD_PREREQ";
        /// A field twice.
        DupField = 10, "DUP_FIELD";
        /// Not permitted.
        Eperm = 11, "EPERM";
    }
    /// A flow-mod failed.
    FlowModFailed(NONE, 5, "OFPFMFC_") {
        /// It isn't said why.
        Unspecified = 0, "UNKNOWN";
        /// The table is full.
        TableFull = 1, "TABLE_FULL";
        /// There is no such table.
        BadTableId = 2, "BAD_TABLE_ID";
        /// It overlaps another entry.
        Overlap = 3, "OVERLAP";
        /// Not permitted.
        Eperm = 4, "EPERM";
        /// A timeout that isn't done.
        BadTimeout = 5, "BAD_TIMEOUT";
        /// A command that isn't known.
        BadCommand = 6, "BAD_COMMAND";
        /// Flags that aren't done.
        BadFlags = 7, "BAD_FLAGS";
    }
    /// A group-mod failed.
    GroupModFailed(NONE, 6, "OFPGMFC_") {
        /// There is such a group.
        GroupExists = 0, "GROUP_EXISTS";
        /// The group can't be.
        InvalidGroup = 1, "INVALID_GROUP";
        /// Weights aren't done.
        WeightUnsupported = 2, "WEIGHT_UNSUPPORTED";
        /// Too many groups.
        OutOfGroups = 3, "OUT_OF_GROUPS";
        /// Too many buckets.
        OutOfBuckets = 4, "OUT_OF_BUCKETS";
        /// Groups can't send to groups.
        ChainingUnsupported = 5, "CHAINING_UNSUPPORTED";
        /// What is watched can't be.
        WatchUnsupported = 6, "WATCH_UNSUPPORTED";
        /// Groups would send in a circle.
        Loop = 7, "LOOP";
        /// There is no such group.
        UnknownGroup = 8, "UNKNOWN_GROUP";
        /// Another group sends to it.
        ChainedGroup = 9, "CHAINED_GROUP";
        /// A type that isn't known.
        BadType = 10, "BAD_TYPE";
        /// A command that isn't known.
        BadCommand = 11, "BAD_COMMAND";
        /// A bucket isn't right.
        BadBucket = 12, "BAD_BUCKET";
        /// What is watched isn't right.
        BadWatch = 13, "BAD_WATCH";
        /// Not permitted.
        Eperm = 14, "EPERM";
    }
    /// A port-mod failed.
    PortModFailed(NONE, 7, "OFPPMFC_") {
        /// There is no such port.
        BadPort = 0, "BAD_PORT";
        /// The address isn't the port's.
        BadHwAddr = 1, "BAD_HW_ADDR";
        /// A configuration that can't be.
        BadConfig = 2, "BAD_CONFIG";
        /// Features that can't be.
        BadAdvertise = 3, "BAD_ADVERTISE";
        /// Not permitted.
        Eperm = 4, "EPERM";
    }
    /// A table-mod failed.
    TableModFailed(NONE, 8, "OFPTMFC_") {
        /// There is no such table.
        BadTable = 0, "BAD_TABLE";
        /// A configuration that can't be.
        BadConfig = 1, "BAD_CONFIG";
        /// Not permitted.
        Eperm = 2, "EPERM";
    }
    /// A question about queues failed.
    QueueOpFailed(NONE, 9, "OFPQOFC_") {
        /// There is no such port.
        BadPort = 0, "BAD_PORT";
        /// There is no such queue.
        BadQueue = 1, "BAD_QUEUE";
        /// Not permitted.
        Eperm = 2, "EPERM";
    }
    /// The configuration can't be set.
    SwitchConfigFailed(NONE, 10, "OFPSCFC_") {
        /// Flags that can't be.
        BadFlags = 0, "BAD_FLAGS";
        /// A length that can't be.
        BadLen = 1, "BAD_LEN";
        /// Not permitted.
        Eperm = 2, "EPERM";
    }
    /// A role request failed.
    RoleRequestFailed(NONE, 11, "OFPRRFC_") {
        /// The generation is older than the last one.
        Stale = 0, "STALE";
        /// Roles don't change here.
        Unsup = 1, "UNSUP";
        /// There is no such role.
        BadRole = 2, "BAD_ROLE";
    }
    /// A meter-mod failed.
    MeterModFailed(NONE, 12, "OFPMMFC_") {
        /// It isn't said why.
        Unspecified = 0, "UNKNOWN";
        /// There is such a meter.
        MeterExists = 1, "METER_EXISTS";
        /// The meter can't be.
        InvalidMeter = 2, "INVALID_METER";
        /// There is no such meter.
        UnknownMeter = 3, "UNKNOWN_METER";
        /// A command that isn't known.
        BadCommand = 4, "BAD_COMMAND";
        /// Flags that aren't done.
        BadFlags = 5, "BAD_FLAGS";
        /// A rate that isn't done.
        BadRate = 6, "BAD_RATE";
        /// A burst that isn't done.
        BadBurst = 7, "BAD_BURST";
        /// A band that isn't done.
        BadBand = 8, "BAD_BAND";
        /// A value of a band that isn't done.
        BadBandValue = 9, "BAD_BAND_VALUE";
        /// Too many meters.
        OutOfMeters = 10, "OUT_OF_METERS";
        /// Too many bands.
        OutOfBands = 11, "OUT_OF_BANDS";
    }
    /// Setting table features failed.
    TableFeaturesFailed(NONE, 13, "OFPTFFC_") {
        /// There is no such table.
        BadTable = 0, "BAD_TABLE";
        /// A mask of the metadata that can't be.
        BadMetadata = 1, "BAD_METADATA";
        /// A property that isn't known.
        BadType = 2, "BAD_TYPE";
        /// A length that can't be.
        BadLen = 3, "BAD_LEN";
        /// A value that can't be.
        BadArgument = 4, "BAD_ARGUMENT";
        /// Not permitted.
        Eperm = 5, "EPERM";
    }
    /// A bundle failed (ONF extension 230).
    BundleFailed(ONF, 0xffff, "OFPBFC_") {
        /// It isn't said why.
        Unspecified = 2300, "UNKNOWN";
        /// Not permitted.
        Eperm = 2301, "EPERM";
        /// There is no such bundle.
        BadId = 2302, "BAD_ID";
        /// There is such a bundle.
        BundleExist = 2303, "BUNDLE_EXIST";
        /// The bundle is closed.
        BundleClosed = 2304, "BUNDLE_CLOSED";
        /// Too many bundles.
        OutOfBundles = 2305, "OUT_OF_BUNDLES";
        /// A control message that isn't known.
        BadType = 2306, "BAD_TYPE";
        /// Flags that aren't the bundle's.
        BadFlags = 2307, "BAD_FLAGS";
        /// A message's length can't be.
        MsgBadLen = 2308, "MSG_BAD_LEN";
        /// A message's transaction id isn't the bundle's.
        MsgBadXid = 2309, "MSG_BAD_XID";
        /// A message that bundles can't hold.
        MsgUnsup = 2310, "MSG_UNSUP";
        /// Messages that don't go together.
        MsgConflict = 2311, "MSG_CONFLICT";
        /// Too many messages.
        MsgTooMany = 2312, "MSG_TOO_MANY";
        /// A message failed.
        MsgFailed = 2313, "MSG_FAILED";
        /// It takes too long.
        Timeout = 2314, "TIMEOUT";
        /// Another bundle is in the way.
        BundleInProgress = 2315, "BUNDLE_IN_PROGRESS";
    }
    /// Setting what is told unasked failed (ONF extension 237).
    AsyncConfigFailed(ONF, 0xffff, "OFPACFC_") {
        /// A mask can't be.
        Invalid = 2370, "INVALID";
        /// It isn't done.
        Unsupported = 2371, "UNSUPPORTED";
        /// Not permitted.
        Eperm = 2372, "EPERM";
    }
    /// Other errors of later versions that are numbered in 1.3 too.
    OnfFailed(ONF, 0xffff, "OFP") {
        /// A priority that isn't done.
        FmfcBadPriority = 2360, "FMFC_BAD_PRIORITY";
        /// An instruction twice.
        BicDupInst = 2600, "BIC_DUP_INST";
        /// A request's next part took too long.
        BrcMultipartRequestTimeout = 2640, "BRC_MULTIPART_REQUEST_TIMEOUT";
        /// A reply's next part took too long.
        BrcMultipartReplyTimeout = 2641, "BRC_MULTIPART_REPLY_TIMEOUT";
        /// A mask in a set-field action.
        BacBadSetMask = 4250, "BAC_BAD_SET_MASK";
        /// A property too often.
        BpcTooMany = 4443, "BPC_TOO_MANY";
        /// A property twice.
        BpcDupType = 4444, "BPC_DUP_TYPE";
        /// A property of an experimenter that isn't known.
        BpcBadExperimenter = 4445, "BPC_BAD_EXPERIMENTER";
        /// A property of the experimenter's that isn't known.
        BpcBadExpType = 4446, "BPC_BAD_EXP_TYPE";
        /// A value that the experimenter's property can't have.
        BpcBadExpValue = 4447, "BPC_BAD_EXP_VALUE";
        /// Not permitted, of a property.
        BpcEperm = 4448, "BPC_EPERM";
    }
    /// Errors of Open vSwitch's own.
    NiciraFailed(NX, 0xffff, "") {
        /// A match that can't be.
        BrcNxmInvalid = 2, "NXBRC_NXM_INVALID";
        /// A field that can't be.
        BrcNxmBadType = 3, "NXBRC_NXM_BAD_TYPE";
        /// Padding that isn't zero.
        BrcMustBeZero = 4, "NXBRC_MUST_BE_ZERO";
        /// A reason that isn't known.
        BrcBadReason = 5, "NXBRC_BAD_REASON";
        /// There is such a flow monitor.
        MofcMonitorExists = 6, "OFPMOFC_MONITOR_EXISTS";
        /// Flags of a flow monitor that can't be.
        MofcBadFlags = 7, "OFPMOFC_BAD_FLAGS";
        /// There is no such flow monitor.
        MofcUnknownMonitor = 8, "OFPMOFC_UNKNOWN_MONITOR";
        /// An event of a flow monitor that isn't known.
        BrcFmBadEvent = 9, "NXBRC_FM_BAD_EVENT";
        /// An error that has no form in this version.
        BrcUnencodableError = 10, "NXBRC_UNENCODABLE_ERROR";
        /// Padding of an action that isn't zero.
        BacMustBeZero = 11, "NXBAC_MUST_BE_ZERO";
        /// The hardware failed.
        FmfcHardware = 12, "NXFMFC_HARDWARE";
        /// There is no such table.
        FmfcBadTableId = 13, "NXFMFC_BAD_TABLE_ID";
        /// A conjunction beside other actions.
        BacBadConjunction = 15, "NXBAC_BAD_CONJUNCTION";
        /// A command for the table of tunnel options that isn't known.
        TtmfcBadCommand = 16, "NXTTMFC_BAD_COMMAND";
        /// A tunnel option whose length can't be.
        TtmfcBadOptLen = 17, "NXTTMFC_BAD_OPT_LEN";
        /// A field for a tunnel option that can't be.
        TtmfcBadFieldIdx = 18, "NXTTMFC_BAD_FIELD_IDX";
        /// Too many tunnel options.
        TtmfcTableFull = 19, "NXTTMFC_TABLE_FULL";
        /// The tunnel option or the field is mapped already.
        TtmfcAlreadyMapped = 20, "NXTTMFC_ALREADY_MAPPED";
        /// A tunnel option twice.
        TtmfcDupEntry = 21, "NXTTMFC_DUP_ENTRY";
        /// The datapath can't do it.
        RNotSupported = 34, "NXR_NOT_SUPPORTED";
        /// What a resumed packet goes on with is no longer there.
        RStale = 35, "NXR_STALE";
        /// What is asked about isn't configured.
        StNotConfigured = 36, "NXST_NOT_CONFIGURED";
        /// A tunnel option that isn't mapped.
        FmfcInvalidTlvField = 37, "NXFMFC_INVALID_TLV_FIELD";
        /// The tunnel option is in use, and can't be removed.
        TtmfcInvalidTlvDel = 38, "NXTTMFC_INVALID_TLV_DEL";
        /// A header that can't be put on or taken off.
        BacBadHeaderType = 39, "NXBAC_BAD_HEADER_TYPE";
        /// A property of a header that isn't known.
        BacUnknownEdProp = 40, "NXBAC_UNKNOWN_ED_PROP";
        /// A property of a header that can't be.
        BacBadEdProp = 41, "NXBAC_BAD_ED_PROP";
        /// The datapath has no such connection tracking.
        BacCtDatapathSupport = 42, "NXBAC_CT_DATAPATH_SUPPORT";
        /// The datapath can't match on connection tracking.
        BmcCtDatapathSupport = 43, "NXBMC_CT_DATAPATH_SUPPORT";
        /// A table twice.
        TffcDupTable = 44, "NXTFFC_DUP_TABLE";
    }
}
